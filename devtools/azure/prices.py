"""What a machine costs an hour, from Azure's public price list; nobody has to be signed in for it.

hourly("Standard_E16s_v3", "eastus2", low=False)      # 1.008
python -m devtools.azure.prices Standard_E16s_v3 eastus2

List prices of the pay-as-you-go offer in US dollars, Linux, without anybody's discounts
(learn.microsoft.com/rest/api/cost-management/retail-prices/azure-retail-prices).
"""

from __future__ import annotations

import functools
import sys
from typing import Any

ADDRESS = "https://prices.azure.com/api/retail/prices"
TIMEOUT = 10
HOURS_A_DAY = 24


@functools.lru_cache
def hourly(size: str, location: str, low: bool = False) -> float | None:
    """US dollars an hour of one machine; None where the list does not say, or is out of reach."""
    found = items(
        "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' "
        f"and armRegionName eq '{location}' and armSkuName eq '{size}'"
    )
    prices = [item["retailPrice"] for item in found if _is_meant(item, low)]
    return min(prices) if prices else None


def items(wanted: str) -> list[dict[str, Any]]:
    """What the list has for a filter in OData's words; nothing where it is out of reach."""
    import requests

    try:
        answer = requests.get(ADDRESS, params={"$filter": wanted}, timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.json()["Items"]
    except (requests.RequestException, ValueError, KeyError):
        return []


def _is_meant(item: dict[str, Any], low: bool) -> bool:
    names = f"{item.get('meterName', '')} {item.get('skuName', '')}"
    if "Windows" in item.get("productName", "") or "Spot" in names:
        return False
    return ("Low Priority" in names) == low


def an_hour(price: float | None, count: int = 1) -> str:
    """A price for people: `2 x 3.67 = 7.34 USD an hour`."""
    if price is None:
        return "at a price that the public list does not say (prices.azure.com)"
    return f"{price:.2f} USD an hour" if count == 1 else f"{count} x {price:.2f} = {count * price:.2f} USD an hour"


def a_day(price: float | None, count: int = 1) -> str:
    """The same for 24 hours."""
    return "unknown" if price is None else f"{price * count * HOURS_A_DAY:.2f} USD"


if __name__ == "__main__":
    print(an_hour(hourly(*sys.argv[1:3])))
