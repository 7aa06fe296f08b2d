//! YAML files into typed values, with diagnostics that point into the file.
