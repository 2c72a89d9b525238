"""The way from one release's tables to the next, up and down."""
