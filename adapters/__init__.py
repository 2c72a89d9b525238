"""What the broker asks of sites, and how each kind of site does it."""
