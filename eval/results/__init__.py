"""Results: the schema, comparison, tables, pages and plots."""
