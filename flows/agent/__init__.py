"""The chat flow's successor: the same conversation, with the same model, on Microsoft Agent Framework."""

import os

# before the framework is imported, which reads them then: it traces nothing, and requests do not say what sends them
os.environ.setdefault("ENABLE_INSTRUMENTATION", "false")
os.environ.setdefault("AGENT_FRAMEWORK_USER_AGENT_DISABLED", "true")
