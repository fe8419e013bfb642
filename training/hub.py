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
        """`dataset[split]:row N`."""
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
    reachable = _ask_hub(name)
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
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"{name}: {reason}; correct the name, --config or --split") from None
    return HubSplit(f"{name}[{split}]", dataset)


def _ask_hub(name: str) -> bool:
    """Whether the hub answers; raises BadInput when it says that the dataset is not there or not for this user."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi().dataset_info(name, timeout=FIRST_ANSWER)
    except GatedRepoError:
        raise BadInput(f"{name}: its owner gives access on request; ask on its page and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise BadInput(
            f"{name}: neither a file here nor a dataset on the hub; correct the name (a private one needs HF_TOKEN)"
        ) from None
    except (OSError, OfflineModeIsEnabled, HfHubHTTPError):
        pass
    except Exception as error:  # the HTTP client's own errors, whose package depends on the hub library's version
        if "http" not in type(error).__module__:
            raise
    else:
        return True
    # from here on the cache or nothing: each file's retries would take minutes
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    return False
