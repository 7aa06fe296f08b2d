//! Comparing the cache with the site.
