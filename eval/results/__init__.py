"""Results: schema, comparison, tables, pages and plots."""
