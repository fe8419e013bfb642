"""The workspace and what it stands on: subscription, group, registry, storage account, identity, roles, quota."""
