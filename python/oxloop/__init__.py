"""oxloop."""
