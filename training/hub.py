"""Rows of a dataset on the Hugging Face hub, through `datasets` and its cache; a slice such as `train_sft[:1%]` works.

python training/prepare_data.py prepare HuggingFaceH4/ultrachat_200k --config default --split 'train_sft[:1%]'
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from errors import BadInput

#: Seconds to wait for the hub's first answer; without one, only what is in the cache already can be prepared.
FIRST_ANSWER = 10
BATCH = 500


class HubSplit:
    """One split (or a slice of one) of a hub dataset; see sources.RowSource."""

    split = ""

    def __init__(self, name: str, dataset: Any) -> None:
        self.name = name
        self.size = dataset.num_rows
        self.done = 0
        self._dataset = dataset

    def place(self, number: int) -> str:
        """`dataset:split:row N`."""
        return f"{self.name}:row {number}"

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Row number from 1, and the columns by name."""
        for table in self._dataset.with_format("arrow").iter(BATCH):
            for row in table.to_pylist():
                self.done += 1
                yield self.done, row


def open_hub(name: str, config: str | None, split: str | None) -> HubSplit:
    """Download (or find in the cache) one split of a hub dataset; `split` None is `train`.

    Raises BadInput when there is no such dataset, config or split, when it may not be read, or when the hub cannot be
    reached and the cache does not hold it: within seconds, not after the libraries' own retries.
    """
    reachable = ask_hub(name)
    import datasets
    from datasets.exceptions import DatasetsError

    split = split or "train"
    try:
        dataset = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if not reachable:
            raise BadInput(
                f"{name}: is no file here, the hub cannot be reached, and its cache does not hold this dataset; "
                "go online, or give a local file"
            ) from None
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise BadInput(f"{name}: {reason}; correct the name, --config or --split") from None
    return HubSplit(f"{name}:{split}", dataset)


def ask_hub(name: str, kind: str = "dataset") -> bool:
    """Whether the hub answers, asked once and for FIRST_ANSWER seconds at most; `kind` is `dataset` or `model`.

    When it does not, this process goes on offline: the cache or nothing, for the libraries' own retries take a minute a
    file. Raises BadInput when the hub says that there is no such thing, or not for this user.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    absent = BadInput(f"{name}: neither here nor a {kind} on the hub; correct the name (a private one needs HF_TOKEN)")
    try:
        HfApi().repo_info(name, repo_type=kind, timeout=FIRST_ANSWER)
        return True
    except GatedRepoError:
        raise BadInput(f"{name}: its owner gives access on request; ask on its page and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise absent from None
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403, 404):
            raise absent from None
    except (OSError, OfflineModeIsEnabled):
        pass
    except ValueError as error:  # a name that no repository can have
        raise BadInput(f"{name}: {' '.join(str(error).split())}; correct the name") from None
    except Exception as error:  # the HTTP client's own errors, whose package depends on the hub library's version
        if "http" not in type(error).__module__:
            raise
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    return False
