"""Operations that every room below shares: products, lookups, chunked scans, masks, sites."""
