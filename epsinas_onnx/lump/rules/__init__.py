"""The rules, one module an operator family; `lump.all_rules` lists them."""
