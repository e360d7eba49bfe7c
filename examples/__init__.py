"""Programs to start from; a package, since some library installs an `examples` of its own."""
