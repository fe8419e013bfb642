"""The workspace's container registry: a real one, behind the sign-in of Azure's (its own token for one of Entra's)."""
