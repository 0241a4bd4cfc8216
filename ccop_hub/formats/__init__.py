"""Weight files: recognising, reading safely, naming and converting them."""
