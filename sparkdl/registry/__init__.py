"""Named, versioned bundles, and aliases that say which version is in use. ``docs/registry.md`` describes it."""
