//! The scale table.
