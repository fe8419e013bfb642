"""Versioned assets of the workspace: environments, codes, data, models; and what their addresses stand for."""
