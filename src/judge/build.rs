//! (to come)
/// What a build context must keep to.
#[derive(Debug, Clone, PartialEq)]
pub struct ContextRules {}
