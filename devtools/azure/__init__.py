"""The Azure backend: the same job, image and server in an Azure Machine Learning workspace.

phikit azure check
phikit azure train --recipe tiny_cpu
phikit azure deploy

The only place where Azure's packages are imported, and only when one of its commands runs.
"""
