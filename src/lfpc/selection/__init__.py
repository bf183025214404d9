"""Resolution selection: how far each sample's first view is reduced."""
