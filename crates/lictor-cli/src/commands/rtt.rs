//! `rtt`: the distance between two network coordinates.

use serde::Deserialize;

use super::{Failure, Outcome, Ui};
use crate::args::cluster::RttArgs;
use crate::client::{Call, Client};

/// A place in the network: a point, a height above the plane for the access link, and a correction. All in seconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Coordinate {
    vec: Vec<f64>,
    adjustment: f64,
    height: f64,
}

impl Coordinate {
    /// The estimated time there and back, in seconds.
    fn distance(&self, other: &Self) -> f64 {
        let squares = self.vec.iter().zip(&other.vec).map(|(a, b)| (a - b) * (a - b));
        let raw = squares.sum::<f64>().sqrt() + self.height + other.height;
        let adjusted = raw + self.adjustment + other.adjustment;
        if adjusted > 0.0 { adjusted } else { raw }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Placed {
    node: String,
    coord: Coordinate,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Area {
    datacenter: String,
    #[serde(rename = "AreaID")]
    id: String,
    #[serde(default)]
    coordinates: Vec<Placed>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    config: AboutConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AboutConfig {
    datacenter: String,
    node_name: String,
}

pub(crate) async fn run(args: &RttArgs, ui: &mut Ui<'_>) -> Outcome {
    if !(1..=2).contains(&args.nodes.len()) {
        return Err(Failure("One or two node names must be specified".to_owned()));
    }
    let wan = args.wan == Some(true);
    let mut client = ui.client(&args.client)?;
    let mut names = args.nodes.clone();
    if names.len() == 1 {
        let about: Result<About, _> = client.fetch(Call::get("agent/self")).await;
        let own = about.map_err(|error| Failure(format!("Unable to look up agent info: {error}")))?;
        let own = own.config;
        names.push(if wan {
            format!("{}.{}", own.node_name, own.datacenter)
        } else {
            own.node_name
        });
    }
    let mut places = Vec::new();
    let kind = if wan {
        let parsed: Option<Vec<_>> = names.iter().map(|name| name.rsplit_once('.')).collect();
        let Some(parsed) = parsed else {
            return Err(Failure(
                "Node names must be specified as <node name>.<datacenter> with -wan".to_owned(),
            ));
        };
        let areas: Vec<Area> = fetch(&mut client, "coordinate/datacenters").await?;
        for ((node, datacenter), name) in parsed.into_iter().zip(&names) {
            let mut found = areas
                .iter()
                .filter(|area| area.datacenter == datacenter && area.id == "wan")
                .flat_map(|area| &area.coordinates);
            let short = |placed: &&Placed| {
                placed.node == node || placed.node.rsplit_once('.').is_some_and(|(own, _)| own == node)
            };
            places.push(found.find(short).map(|placed| placed.coord.clone()).ok_or(name));
        }
        "WAN"
    } else {
        let all: Vec<Placed> = fetch(&mut client, "coordinate/nodes").await?;
        for name in &names {
            let found = all.iter().find(|placed| placed.node == *name);
            places.push(found.map(|placed| placed.coord.clone()).ok_or(name));
        }
        "LAN"
    };
    let places: Result<Vec<Coordinate>, _> = places.into_iter().collect();
    let places = places.map_err(|name| Failure(format!("Could not find a coordinate for node {name:?}")))?;
    let ms = places[0].distance(&places[1]) * 1000.0;
    ui.line(format_args!(
        "Estimated {} <-> {} rtt: {ms:.3} ms (using {kind} coordinates)",
        names[0], names[1]
    ))?;
    Ok(())
}

async fn fetch<T: serde::de::DeserializeOwned>(client: &mut Client, path: &str) -> Result<T, Failure> {
    let found = client.fetch(Call::get(path)).await;
    found.map_err(|error| Failure(format!("Error getting coordinates: {error}")))
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const NODES: &str = r#"[{"Node":"a","Coord":{"Vec":[0.003,0],"Error":1.5,"Adjustment":0,"Height":0.00001}},
        {"Node":"b","Coord":{"Vec":[0,0.004],"Error":1.5,"Adjustment":0.001,"Height":0.00001}}]"#;

    #[test]
    fn the_distance_is_the_points_the_heights_and_the_corrections() {
        let ran = run("lictor rtt a b", "", &[(200, NODES)]);

        assert_eq!(ran.asked, ["GET /v1/coordinate/nodes"]);
        assert_eq!(
            ran.out,
            "Estimated a <-> b rtt: 6.020 ms (using LAN coordinates)\n"
        );
    }

    #[test]
    fn a_single_node_is_measured_from_the_agents_own() {
        let about = r#"{"Config":{"Datacenter":"dc1","NodeName":"a"}}"#;
        let ran = run("lictor rtt a", "", &[(200, about), (200, NODES)]);

        assert_eq!(
            ran.out,
            "Estimated a <-> a rtt: 0.020 ms (using LAN coordinates)\n"
        );
    }

    #[test]
    fn datacenters_have_coordinates_of_their_own() {
        let areas = r#"[{"Datacenter":"dc1","AreaID":"wan","Coordinates":[{"Node":"a.dc1","Coord":{"Vec":[0],"Adjustment":0,"Height":0.00001}}]}]"#;
        let ran = run("lictor rtt -wan a.dc1 a.dc1", "", &[(200, areas)]);

        assert_eq!(ran.asked, ["GET /v1/coordinate/datacenters"]);
        assert_eq!(
            ran.out,
            "Estimated a.dc1 <-> a.dc1 rtt: 0.020 ms (using WAN coordinates)\n"
        );
    }

    #[test]
    fn unknown_nodes_are_named() {
        let ran = run("lictor rtt a c", "", &[(200, NODES)]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("Could not find a coordinate for node \"c\"")
        );

        let ran = run("lictor rtt a b c", "", &[]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("One or two node names must be specified")
        );
    }
}
