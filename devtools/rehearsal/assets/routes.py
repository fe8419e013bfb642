"""The calls about versioned assets: environments, codes, data, models."""

from __future__ import annotations

from devtools.rehearsal.assets import data, models
from devtools.rehearsal.assets.codes import Codes
from devtools.rehearsal.assets.environments import Environments

ROUTES = [
    *Environments().routes(),
    *Codes().routes(),
    *data.Data().routes(),
    *models.Models().routes(),
    data.RESOLVE,
    models.RESOLVE,
]
