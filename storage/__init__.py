"""What is stored: tables, and later keys and encrypted objects."""
