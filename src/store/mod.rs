//! Where rows are kept: SQLite or Elasticsearch.
