"""SLAM side by side: `semkey eval slam`."""
