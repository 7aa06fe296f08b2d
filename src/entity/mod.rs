//! Names and values of Shotgun data: entity types, references, field values.
