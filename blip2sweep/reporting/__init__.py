"""What people look at: terminal table, pictures, tracking. Reads the table only; never imports torch."""
