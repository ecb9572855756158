use super::*;
use crate::channel;

/// The client of a monitor that this test plays.
fn client() -> (Arc<MonitorClient>, OwnedFd) {
    let (ours, theirs) = channel::pair().unwrap();
    let client = MonitorClient::new(ours, None).unwrap();
    (Arc::new(client), theirs)
}

#[tokio::test]
async fn clients_of_monitors_that_have_ended_are_dropped_with_the_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let root = StateRoot::new(folder.path());
    let executor = HostExecutor::new(root.clone());
    let [ended, lives, next] = ["ended", "lives", "next"].map(|id| ContainerId::new(id).unwrap());
    let (client_of_ended, monitor) = client();
    let (client_of_living, _monitor) = client();
    drop(monitor);
    let closed = async {
        while client_of_ended.is_alive() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed)
        .await
        .unwrap();
    executor.clients().insert(ended, client_of_ended);
    executor.clients().insert(lives.clone(), client_of_living);
    let dir = root.container(&next);
    std::fs::create_dir(dir.path()).unwrap();
    let _listener = channel::listen(&dir.socket()).unwrap();
    assert!(executor.client(&next).unwrap().is_some());
    let mut left: Vec<_> = executor.clients().keys().cloned().collect();
    left.sort();
    assert_eq!(left, [lives, next]);
}
