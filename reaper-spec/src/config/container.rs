//! What the configuration makes of a container.

use super::types::{Config, DeviceMode, HookMode, NetworkMode};
use crate::{
    container_spec::ContainerSpec, error::Error, namespaces::NamespaceKind, policy::Privileges,
};

impl Config {
    /// Checks a container against the policy, and changes it to what the node's admin says of its privileges,
    /// its devices and its hooks. Returns what is not as the spec or the admin says, in words for a log: with
    /// [`runtime_path`](Self::runtime_path) the runtime reads the spec itself, whatever else is set here.
    ///
    /// # Errors
    /// [`Error::Policy`] with the first rule that it does not keep.
    pub fn apply_to_container(&self, container: &mut ContainerSpec) -> Result<Vec<String>, Error> {
        let without_effect = self.without_effect(container);
        let scope = self.overlay.enabled.then_some(&self.overlay.scope);
        let privileges = self.policy.apply_to_container(container, scope)?;
        let devices = self.devices.apply_to_container(container);
        let hooks = self.hooks.apply(container);
        if let Some(runtime) = &self.runtime_path {
            let runtime = runtime.display();
            let said = |setting| {
                format!("{setting} has no effect: {runtime} does as the spec says (runtime_path)")
            };
            return Ok(without_effect.into_iter().map(said).collect());
        }
        let applied = [devices, hooks].into_iter().flatten().map(str::to_owned);
        Ok(privileges.into_iter().chain(applied).collect())
    }

    /// The settings that would change this container, but for a runtime.
    fn without_effect(&self, container: &ContainerSpec) -> Vec<&'static str> {
        let joins_network = container.namespace(NamespaceKind::Network).is_some();
        let settings = [
            (
                self.policy.privileges == Privileges::Node,
                "policy.privileges = \"node\"",
            ),
            (
                self.devices == DeviceMode::Node && !container.resources.devices.is_empty(),
                "devices = \"node\"",
            ),
            (
                self.hooks == HookMode::Off && !container.hooks.is_empty(),
                "hooks = \"off\"",
            ),
            (
                self.network == NetworkMode::Host && joins_network,
                "network = \"host\"",
            ),
        ];
        let ignored = settings.into_iter().filter(|(is_ignored, _)| *is_ignored);
        ignored.map(|(_, setting)| setting).collect()
    }
}
