"""The price list, as a client of the real one asks for it."""

import pytest
import requests

from devtools.rehearsal import PRICES_HOST, sizes
from devtools.rehearsal.prices import conditions

ADDRESS = f"https://{PRICES_HOST}/api/retail/prices"
LINUX = "serviceName eq 'Virtual Machines' and armRegionName eq 'eastus2' and priceType eq 'Consumption'"


# (its fixture sets proxy and certificate)
reachable = pytest.mark.usefixtures("ml_client")


def ask(filter: str, **more) -> dict:
    answer = requests.get(ADDRESS, params={"$filter": filter, **more}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


@reachable
def test_the_prices_of_a_size():
    found = ask(f"{LINUX} and armSkuName eq 'Standard_NC24ads_A100_v4'")
    assert found["Count"] == len(found["Items"]) == 6
    linux = {one["skuName"]: one for one in found["Items"] if "Windows" not in one["productName"]}
    assert linux.keys() == {"NC24ads A100 v4", "NC24ads A100 v4 Spot", "NC24ads A100 v4 Low Priority"}
    dedicated = linux["NC24ads A100 v4"]
    assert dedicated["retailPrice"] == dedicated["unitPrice"] == 3.673
    assert (dedicated["unitOfMeasure"], dedicated["type"]) == ("1 Hour", "Consumption")
    assert linux["NC24ads A100 v4 Low Priority"]["retailPrice"] < dedicated["retailPrice"]
    windows = [one["retailPrice"] for one in found["Items"] if "Windows" in one["productName"]]
    assert max(windows) > dedicated["retailPrice"]


@reachable
def test_where_nothing_is_sold():
    found = ask("armRegionName eq 'mars' and armSkuName eq 'Standard_E4s_v3'")
    assert (found["Items"], found["Count"], found["NextPageLink"]) == ([], 0, None)


@reachable
def test_pages_lead_to_everything():
    page, seen = ask(""), []
    while True:
        seen += [one["meterId"] for one in page["Items"]]
        if not page["NextPageLink"]:
            break
        page = requests.get(page["NextPageLink"], timeout=30).json()
    assert len(seen) == len(set(seen)) == sum(6 if size.low_priority else 2 for size in sizes.SIZES)


@reachable
@pytest.mark.parametrize(
    "filter", ["armSkuName", "armSkuName eq 'x", "armSkuName like 'x'", "f(armSkuName,'x')", "(a eq 'x'"]
)
def test_a_filter_that_cannot_be_read(filter):
    answer = requests.get(ADDRESS, params={"$filter": filter}, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["Error"]["Code"] == "BadRequest"


@pytest.mark.parametrize(
    ("filter", "holds"),
    [
        ("name eq 'a'", True),
        ("NAME eq 'a'", True),
        ("name eq 'A'", False),
        ("name ne 'a' or price lt 2", True),
        ("not (name eq 'a') and price lt 2", False),
        ("contains(name, 'a') and startswith(name,'a') and endswith(name, 'a')", True),
        ("price ge 1.5 and price le 1.5", True),
        ("primary eq true", True),
        ("name eq 'it''s'", False),
        ("other eq 'a'", False),
    ],
)
def test_conditions(filter, holds):
    assert conditions.read(filter)({"name": "a", "price": 1.5, "primary": True}) is holds
