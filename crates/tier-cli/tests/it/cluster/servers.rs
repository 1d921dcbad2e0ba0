//! SeaweedFS on many machines: three masters, four volume servers that have each block twice, and a
//! gateway that speaks S3.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::network::{Machine, Network};

const N_MASTERS: usize = 3;
const N_VOLUMES: usize = 4;
const START_MAX: Duration = Duration::from_mins(1);
const IDENTITIES: &str = r#"{"identities": [{
  "name": "test",
  "credentials": [{"accessKey": "test-key", "secretKey": "test-secret"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}"#;

/// The machines of a cluster, and two that use it.
pub(super) const MACHINES: [&str; 10] =
    ["m0", "m1", "m2", "v0", "v1", "v2", "v3", "gateway", "writer", "other"];
pub(super) const WRITER: usize = 8;
pub(super) const OTHER: usize = 9;
const GATEWAY: usize = 7;

pub(super) struct Cluster {
    dir: PathBuf,
    masters: Vec<Server>,
    volumes: Vec<Server>,
    _gateway: Server,
    gateway: Machine,
}

/// A server on a machine, which can be killed and started again.
pub(super) struct Server {
    machine: Machine,
    arguments: String,
    log: PathBuf,
    child: Child,
}

impl Server {
    fn start(machine: Machine, arguments: String, log: PathBuf) -> Option<Self> {
        let child = spawn(&machine, &arguments, &log)?;
        Some(Self { machine, arguments, log, child })
    }

    /// Ends it as a power cut does.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn start_again(&mut self) {
        self.child = spawn(&self.machine, &self.arguments, &self.log).unwrap();
    }

    pub(super) fn set_cut(&self, is_cut: bool) {
        self.machine.set_cut(is_cut);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(machine: &Machine, arguments: &str, log: &Path) -> Option<Child> {
    let log = File::options().create(true).append(true).open(log).unwrap();
    let mut command = machine.command("weed");
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().ok()
}

impl Cluster {
    /// Starts all servers, and makes a bucket. `None`, said loudly, on a machine without them.
    pub(super) fn start(dir: &Path, network: &Network) -> Option<Self> {
        if Command::new("weed").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: weed is not installed; cargo xtask cluster installs it");
            return None;
        }
        let dir = dir.to_path_buf();
        let address = |number: usize| network.machine(number).address;
        let masters: Vec<_> = (0..N_MASTERS).map(|n| format!("{}:9333", address(n))).collect();
        let masters = masters.join(",");
        let server = |number: usize, arguments: String| {
            let name = MACHINES[number];
            fs::create_dir_all(dir.join(name)).unwrap();
            let arguments = format!("-logtostderr=true {arguments}")
                .replace("DATA", &dir.join(name).display().to_string())
                .replace("ADDRESS", &address(number))
                .replace("MASTERS", &masters);
            Server::start(network.machine(number), arguments, dir.join(format!("{name}.log")))
        };
        let master = "master -ip=ADDRESS -ip.bind=ADDRESS -port=9333 -peers=MASTERS -mdir=DATA \
                      -defaultReplication=001 -volumeSizeLimitMB=64 -telemetry=false";
        let volume = "volume -ip=ADDRESS -ip.bind=ADDRESS -port=8080 -master=MASTERS -dir=DATA \
                      -max=100 -minFreeSpacePercent=0";
        let gateway = "filer -ip=ADDRESS -ip.bind=0.0.0.0 -port=8888 -master=MASTERS \
                       -defaultStoreDir=DATA -defaultReplicaPlacement=001 -s3 -s3.port=8333 \
                       -s3.port.iceberg=0 -s3.port.lance=0 -s3.config=IDENTITIES";
        let identities = dir.join("identities.json");
        fs::write(&identities, IDENTITIES).unwrap();
        let gateway = gateway.replace("IDENTITIES", &identities.display().to_string());
        let start = |range: std::ops::Range<usize>, arguments: &str| {
            range.map(|number| server(number, arguments.into())).collect::<Option<Vec<_>>>()
        };
        let masters = start(0..N_MASTERS, master)?;
        let volumes = start(N_MASTERS..N_MASTERS + N_VOLUMES, volume)?;
        let server = server(GATEWAY, gateway)?;
        let gateway = network.machine(GATEWAY);
        let cluster = Self { dir, masters, volumes, _gateway: server, gateway };
        cluster.make_bucket();
        Some(cluster)
    }

    fn make_bucket(&self) {
        let began = Instant::now();
        let mut is_made = false;
        while !is_made || !self.posts("/buckets/bucket/probe") {
            is_made = is_made || self.posts("/buckets/bucket/");
            let log = || fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default();
            assert!(began.elapsed() < START_MAX, "the cluster does not start: {}", log());
            wait(Duration::from_millis(300));
        }
    }

    /// Whether the gateway takes a file, which takes all the others.
    fn posts(&self, path: &str) -> bool {
        let url = format!("http://{}:8888{path}", self.gateway.address);
        let mut curl = self.gateway.command("curl");
        curl.args(["-sf", "-m", "5", "-o", "/dev/null", "-X", "POST"]);
        if path.ends_with("probe") {
            curl.args(["-F", "file=probe"]);
        }
        curl.arg(url).status().is_ok_and(|status| status.success())
    }

    pub(super) fn url(&self) -> String {
        let address = &self.gateway.address;
        format!("s3://bucket/archive?endpoint=http://{address}:8333&region=us-east-1")
    }

    pub(super) fn volume(&mut self, number: usize) -> &mut Server {
        &mut self.volumes[number]
    }

    pub(super) fn master(&mut self, number: usize) -> &mut Server {
        &mut self.masters[number]
    }
}

/// Lets time pass, in which others are busy.
pub(super) fn wait(time: Duration) {
    let (_never, timer) = mpsc::channel::<()>();
    let _ = timer.recv_timeout(time);
}
