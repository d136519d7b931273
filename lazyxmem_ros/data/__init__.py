# SPDX-License-Identifier: Apache-2.0
"""Reading data: datasets, sequences, rosbag2 bags, label maps, and a generated pond."""
