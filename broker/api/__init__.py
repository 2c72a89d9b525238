"""The HTTP edge: routes that authenticate, call one plain function, and answer."""
