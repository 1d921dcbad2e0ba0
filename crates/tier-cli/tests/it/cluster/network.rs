//! A network of machines: each a namespace of its own, on one switch.

use std::process::{Command, Stdio};

/// Names of namespaces and devices, so that what an earlier run left is told apart.
const START: &str = "tierx";
const SUBNET: &str = "10.77.0";

/// A switch with machines, which are taken away when it is dropped.
pub(super) struct Network {
    machines: Vec<Machine>,
}

/// A machine of a network, with its own address.
#[derive(Clone)]
pub(super) struct Machine {
    name: String,
    pub(super) address: String,
}

fn ip(args: &str) -> bool {
    let mut ip = Command::new("ip");
    ip.args(args.split_whitespace()).stderr(Stdio::null());
    ip.status().is_ok_and(|status| status.success())
}

impl Network {
    /// `None`, said loudly, where there may be no namespaces.
    pub(super) fn new(names: &[&str]) -> Option<Self> {
        let mut network = Self { machines: Vec::new() };
        remove(names.len());
        if !ip(&format!("link add {START}-sw type bridge")) {
            eprintln!(
                "SKIPPED: no network namespaces can be made here (ip link add … type bridge)"
            );
            return None;
        }
        assert!(ip(&format!("addr add {SUBNET}.254/24 dev {START}-sw")));
        assert!(ip(&format!("link set {START}-sw up")));
        for (number, _) in names.iter().enumerate() {
            network.add(number);
        }
        Some(network)
    }

    fn add(&mut self, number: usize) {
        let name = format!("{START}{number}");
        let address = format!("{SUBNET}.{}", number + 1);
        let outside = format!("{name}-o");
        for step in [
            format!("netns add {name}"),
            format!("link add {outside} type veth peer name eth0 netns {name}"),
            format!("link set {outside} master {START}-sw"),
            format!("link set {outside} up"),
            format!("-n {name} addr add {address}/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            assert!(ip(&step), "ip {step}");
        }
        self.machines.push(Machine { name, address });
    }

    pub(super) fn machine(&self, number: usize) -> Machine {
        self.machines[number].clone()
    }
}

fn remove(n_machines: usize) {
    for number in 0..n_machines {
        ip(&format!("netns del {START}{number}"));
    }
    ip(&format!("link del {START}-sw"));
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.machines.len());
    }
}

impl Machine {
    /// A program on this machine. It sees the same files as all others: only the network is its
    /// own.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// Its cable is pulled out, or put in.
    pub(super) fn set_cut(&self, is_cut: bool) {
        let state = if is_cut { "down" } else { "up" };
        assert!(ip(&format!("link set {}-o {state}", self.name)), "the cable of {}", self.name);
    }
}
