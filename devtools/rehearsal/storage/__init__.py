"""Datastores: what the workspace calls the containers of its storage account, and the keys to them."""
