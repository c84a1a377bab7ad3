"""datasync: privacy-tiered data synchronisation and mobility for AI on devices, edges and in the cloud."""
