"""Whether certificates are revoked: CRLs and OCSP answers read and judged, kept, and asked for. What fetches them is handed in."""
