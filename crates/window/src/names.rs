//! What the endpoints of every target are called.

use std::sync::Arc;

use kernel_sample::{EndpointAddress, EndpointId};
use monitor_common::endpoint::Role;
use proxy_config::{Name, Names};

/// The names of every target's endpoints.
#[derive(Clone, Debug, Default)]
pub struct TargetNames(Vec<(Option<Arc<str>>, Arc<Names>)>);

impl TargetNames {
    /// Names of a target each, or of all where none is given.
    pub fn new(names: impl IntoIterator<Item = (Option<Arc<str>>, Arc<Names>)>) -> Self {
        Self(names.into_iter().collect())
    }

    /// What an endpoint is called; empty where no configuration says anything.  A
    /// configuration of its target comes before one of all, and of two such the
    /// one that was given first.
    #[must_use]
    pub fn of(&self, id: &EndpointId) -> Name {
        let own = |of: &Option<Arc<str>>| of.as_ref() == Some(&id.target);
        let named = |is_meant: &dyn Fn(&Option<Arc<str>>) -> bool| {
            let meant = self.0.iter().filter(|(of, _)| is_meant(of));
            let mut names = meant.map(|(_, names)| name(names, id));
            names.find(|name| *name != Name::default())
        };
        let name = named(&own).or_else(|| named(&Option::is_none));
        name.unwrap_or_default()
    }
}

/// What an endpoint is called; empty where the configuration says nothing.
fn name(names: &Names, id: &EndpointId) -> Name {
    let EndpointAddress::Socket(address) = id.address else {
        return Name::default();
    };
    let name = match id.role {
        Role::Upstream => names.peer(address),
        Role::Downstream => names.listener(address),
    };
    name.cloned().unwrap_or_default()
}

impl From<Names> for TargetNames {
    /// Names of all targets.
    fn from(names: Names) -> Self {
        Self(vec![(None, names.into())])
    }
}
