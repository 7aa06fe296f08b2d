//! What a site says about its entity types and fields.
