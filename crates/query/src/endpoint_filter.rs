//! Which endpoints a question is about.

use rollup::EndpointId;

/// Which endpoints; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct EndpointFilter {
    pub role: Option<i32>,
    pub address: Option<String>,
}

impl EndpointFilter {
    pub(crate) fn takes(&self, id: &EndpointId) -> bool {
        self.role.is_none_or(|role| role == id.role)
            && self
                .address
                .as_ref()
                .is_none_or(|address| *address == id.address)
    }
}
