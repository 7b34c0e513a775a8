"""Exports as the known systems write them: all columns, order values on the first row only, texts with line breaks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SHOPIFY_HEADER = (
    "Name,Email,Financial Status,Paid at,Fulfillment Status,Fulfilled at,Accepts Marketing,Currency,Subtotal,Shipping,"
    "Taxes,Total,Discount Code,Discount Amount,Shipping Method,Created at,Lineitem quantity,Lineitem name,"
    "Lineitem price,Lineitem compare at price,Lineitem sku,Lineitem requires shipping,Lineitem taxable,"
    "Lineitem fulfillment status,Billing Name,Billing Street,Billing Address1,Billing Address2,Billing Company,"
    "Billing City,Billing Zip,Billing Province,Billing Country,Billing Phone,Shipping Name,Shipping Street,"
    "Shipping Address1,Shipping Address2,Shipping Company,Shipping City,Shipping Zip,Shipping Province,"
    "Shipping Country,Shipping Phone,Notes,Note Attributes,Cancelled at,Payment Method,Payment Reference,"
    "Refunded Amount,Vendor,Outstanding Balance,Employee,Location,Device ID,Id,Tags,Risk Level,Source,"
    "Lineitem discount,Tax 1 Name,Tax 1 Value,Tax 2 Name,Tax 2 Value,Tax 3 Name,Tax 3 Value,Tax 4 Name,Tax 4 Value,"
    "Tax 5 Name,Tax 5 Value,Phone,Receipt Number,Duties,Billing Province Name,Shipping Province Name,Payment ID,"
    "Payment Terms Name,Next Payment Due At,Payment References"
)
WOOCOMMERCE_HEADER = (
    "order_id,order_number,order_number_formatted,order_date,status,shipping_total,shipping_tax_total,fee_total,"
    "fee_tax_total,tax_total,discount_total,order_total,refunded_total,order_currency,payment_method,shipping_method,"
    "customer_id,billing_first_name,billing_last_name,billing_company,billing_email,billing_phone,billing_address_1,"
    "billing_address_2,billing_postcode,billing_city,billing_state,billing_country,shipping_first_name,"
    "shipping_last_name,shipping_address_1,shipping_address_2,shipping_postcode,shipping_city,shipping_state,"
    "shipping_country,shipping_company,customer_note,item_id,item_product_id,item_name,item_sku,item_quantity,"
    "item_subtotal,item_subtotal_tax,item_total,item_total_tax,item_refunded,item_refunded_qty,item_meta,item_price,"
    "order_notes,download_permissions"
)


@dataclass(frozen=True)
class Export:
    """An export, and what its report must say; every export has the users `a`, `b` and two items."""

    name: str
    content: bytes
    mapping: Mapping[str, str]
    skipped: Mapping[str, int]
    user: str | None = None


def _table(columns: Iterable[str], rows: Iterable[Mapping[str, str]], *, quoting: int = csv.QUOTE_MINIMAL) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(columns), restval="", quoting=quoting)  # type: ignore[arg-type]  # an int of csv.QUOTE_*
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def _shopify() -> bytes:
    order = {
        "Financial Status": "paid",
        "Paid at": "2026-03-01 09:50:30 +0200",
        "Currency": "EUR",
        "Total": "17.30",
        "Billing Name": "Ada Å",
        "Billing Zip": "'75008",
        "Notes": "Please ring,\nthen wait.",
        "Note Attributes": 'engraving: "Ada"',
        "Tags": "",
        "Risk Level": "Low",
    }
    line = {"Name": "#1001", "Email": "a", "Created at": "2026-03-01 09:50:26 +0200", "Phone": "+33610826417"}
    other = line | {"Name": "#1002", "Email": "b", "Created at": "2026-03-14 18:02:11 +0100"}
    guest = line | {"Name": "#1003", "Email": ""}
    tea = {"Lineitem quantity": "1", "Lineitem name": "Green tea - 100 g", "Lineitem sku": "TEA-1"}
    cup = {"Lineitem quantity": "2", "Lineitem name": 'Cup, 4"', "Lineitem sku": "CUP-3"}
    rows = [line | order | tea, line | cup, other | order | tea, guest | order | cup]
    return _table(SHOPIFY_HEADER.split(","), rows)


def _woocommerce() -> bytes:
    order = {"order_id": "501", "order_number": "501", "order_date": "2026-03-01 09:50:26", "status": "completed"}
    order |= {"customer_note": "Please ring,\nthen wait.", "shipping_method": "Flat rate", "order_total": "17.30"}
    tea = {"item_id": "9001", "item_product_id": "77", "item_name": "Green tea", "item_sku": "TEA-1"}
    cup = {"item_id": "9002", "item_product_id": "81", "item_name": 'Cup, 4"', "item_sku": ""}
    tea |= {"item_quantity": "1", "item_refunded_qty": "0", "item_meta": "size=100 g"}
    cup |= {"item_quantity": "2"}
    a, b, guest = ({"customer_id": user} for user in ("a", "b", "0"))
    rows = [order | a | tea, order | a | cup, order | b | tea, order | guest | cup]
    return _table(WOOCOMMERCE_HEADER.split(","), rows)


def _magento() -> bytes:
    columns = ["customer_id", "customer_email", "sku", "qty_ordered", "created_at"]
    lines = [("a", "x", "24-MB01"), ("a", "x", "24-WB04"), ("b", "y", "24-MB01"), ("NULL", "z", "24-WB04")]
    return _table(
        columns,
        [dict(zip(columns, (*line, "1.0000", "2026-03-01 09:50:26"), strict=True)) for line in lines],
        quoting=csv.QUOTE_ALL,
    )


def _ga4() -> bytes:
    columns = ["event_date", "event_timestamp", "event_name", "user_pseudo_id", "item_id", "item_name", "quantity"]
    lines = [("a", "TEA-1", "1"), ("a", "CUP-3", ""), ("b", "TEA-1", ""), ("", "CUP-3", "1")]
    return _table(
        columns,
        [
            dict(zip(columns, ("20260301", f"177235142600000{n}", "purchase", user, item, "x", count), strict=True))
            for n, (user, item, count) in enumerate(lines)
        ],
    )


EXPORTS = [
    Export(
        "shopify",
        _shopify(),
        {"user": "Email", "item": "Lineitem sku", "time": "Created at", "score": "Lineitem quantity"},
        {"guest": 1},
    ),
    Export(
        "woocommerce",
        _woocommerce(),
        {"user": "customer_id", "item": "item_product_id", "time": "order_date", "score": "item_quantity"},
        {"guest": 1},
    ),
    Export(
        "magento",
        _magento(),
        {"user": "customer_id", "item": "sku", "time": "created_at", "score": "qty_ordered"},
        {"guest": 1},
        user="customer_id",
    ),
    Export(
        "ga4",
        _ga4(),
        {"user": "user_pseudo_id", "item": "item_id", "time": "event_timestamp", "score": "quantity"},
        {"guest": 1},
    ),
    Export(
        "movielens",
        b"userId,movieId,rating,timestamp\na,1,4.0,964982703\na,3,4.0,964981247\nb,1,0.5,964982224\n",
        {"user": "userId", "item": "movieId", "time": "timestamp", "score": "rating"},
        {},
    ),
]
