"""ROS 1 and ROS 2 bags, read without ROS through the package rosbags (extra ``bags``)."""
