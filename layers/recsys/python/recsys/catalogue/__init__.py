"""The item catalogue of a key: attributes such as title, category, price and availability, in columns."""
