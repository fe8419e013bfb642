"""The price list of VM sizes, at the address of the real one, without sign-in: curl -G -d "$filter=..." works.

Prices are examples that were near those of 2026, in US dollars: they show that a client reads the list rightly, not
what anything costs. Each size is there for Linux and for Windows, dedicated, Spot and Low Priority.
"""

from __future__ import annotations

import hashlib
import uuid
from functools import cache
from typing import Any
from urllib.parse import quote

from devtools.rehearsal import LOCATION, PRICES_HOST, sizes
from devtools.rehearsal.prices import conditions
from devtools.rehearsal.wire import Answer, Call, Route

CURRENCY = "USD"
#: Items of one page.
PAGE = 100
#: What Windows costs more, for each core and hour.
WINDOWS = 0.046


def prices(call: Call) -> dict[str, Any] | Answer:
    """The items that `$filter` leaves, a page at a time."""
    query = {key.lower(): value for key, value in call.query.items()}
    if query.get("currencycode", CURRENCY).strip("'").upper() != CURRENCY:
        return _refused(f"currencyCode {query['currencycode']}: the rehearsal has {CURRENCY} only.")
    try:
        wanted = conditions.read(query["$filter"]) if query.get("$filter") else lambda item: True
        skip = int(query.get("$skip", 0))
        top = min(int(query.get("$top", PAGE)), PAGE)
    except ValueError as error:
        return _refused(f"Invalid OData parameters supplied: {error}")
    found = [item for item in items() if wanted(item)]
    shown = found[skip : skip + top]
    more = skip + len(shown) < len(found) and "$top" not in query
    link = f"https://{PRICES_HOST}:443{call.path}?$filter={quote(query.get('$filter', ''))}&$skip={skip + len(shown)}"
    return {
        "BillingCurrency": CURRENCY,
        "CustomerEntityId": "Default",
        "CustomerEntityType": "Retail",
        "Items": shown,
        "NextPageLink": link if more else None,
        "Count": len(shown),
    }


@cache
def items() -> list[dict[str, Any]]:
    """The whole list."""
    found = []
    for size in sizes.SIZES:
        for windows in (False, True):
            licence = WINDOWS * size.cores if windows else 0
            tiers = [("", size.hourly)]
            if size.low_priority:
                tiers += [(" Spot", size.low_priority), (" Low Priority", size.low_priority)]
            found += [_item(size, tier, price + licence, windows) for tier, price in tiers]
    return found


def _item(size: sizes.Size, tier: str, price: float, windows: bool) -> dict[str, Any]:
    name = size.meter + tier
    product = size.family.product + (" Windows" if windows else "")
    digest = hashlib.sha256(product.encode()).hexdigest().upper()
    return {
        "currencyCode": CURRENCY,
        "tierMinimumUnits": 0.0,
        "retailPrice": round(price, 6),
        "unitPrice": round(price, 6),
        "armRegionName": LOCATION,
        "location": "US East 2",
        "effectiveStartDate": "2026-01-01T00:00:00Z",
        "meterId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{product}/{name}")),
        "meterName": name,
        "productId": f"DZH3{digest[:8]}",
        "skuId": f"DZH3{digest[:8]}/{digest[8:12]}",
        "productName": product,
        "skuName": name,
        "serviceName": "Virtual Machines",
        "serviceId": "DZH313Z7MMC8",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": size.name,
    }


def _refused(message: str) -> Answer:
    # (this list words its errors in a way of its own)
    return Answer(400, {"Error": {"Code": "BadRequest", "Message": message}})


ROUTES = [Route("GET", PRICES_HOST, "/api/retail/prices", prices, asks_token=False)]
