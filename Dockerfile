# SPDX-License-Identifier: Apache-2.0
#
# The tracker on a ROS 2 base image, for robots with or without an NVIDIA GPU. It follows the steps of
# README.md, "On your robot". It has not been built yet: no container engine was at hand where it was
# written.
#
#   docker build --tag lazyxmem_ros .
#   docker run --rm --gpus all --network host --ipc host \
#       --volume lazyxmem_ros:/weights lazyxmem_ros \
#       ros2 launch lazyxmem_ros track.launch.py image:=/camera/image_raw
#
# Without a GPU leave `--gpus all` out. A GPU needs the NVIDIA driver and the NVIDIA Container
# Toolkit on the host; CUDA itself comes with PyTorch. `--ipc host` lets images pass through shared
# memory; the volume keeps weights, and the networks that were translated for this processor.
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

SHELL ["/bin/bash", "-c"]
ENV DEBIAN_FRONTEND=noninteractive \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /workspace
COPY package.xml src/lazyxmem_ros/
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential python3-dev python3-venv \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src --ignore-src --yes \
        --dependency-types=buildtool --dependency-types=build --dependency-types=exec \
    && rm -rf /var/lib/apt/lists/*

# The packages change less often than the sources: this layer, by far the largest, is kept.
COPY requirements.txt requirements-backends.txt requirements-operator.txt \
    requirements-system-ros.txt requirements-lock.txt src/lazyxmem_ros/
RUN python3 -m venv --system-site-packages .venv \
    && .venv/bin/pip install --no-cache-dir \
        --constraint src/lazyxmem_ros/requirements-lock.txt \
        --requirement src/lazyxmem_ros/requirements.txt \
        --requirement src/lazyxmem_ros/requirements-backends.txt \
        --requirement src/lazyxmem_ros/requirements-operator.txt \
        --requirement src/lazyxmem_ros/requirements-system-ros.txt
ENV PATH=/workspace/.venv/bin:$PATH \
    LAZYXMEM_WEIGHTS=/weights

COPY . src/lazyxmem_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && colcon build --packages-select lazyxmem_ros \
        --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE=/workspace/.venv/bin/python

# The base image's entry point sources ROS; this one sources the workspace on top of it.
RUN printf '%s\n' '#!/bin/bash' 'source /workspace/install/setup.bash' 'exec "$@"' > /entrypoint \
    && chmod +x /entrypoint
ENTRYPOINT ["/entrypoint"]
CMD ["ros2", "launch", "lazyxmem_ros", "track.launch.py", "--show-args"]
