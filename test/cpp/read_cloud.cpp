// Reads a cloud of features, matches or tracks from stdin with superpoint_ros/features.hpp, and prints its numbers.
// Where the headers of sensor_msgs are missing, a struct with the same members stands in for its message.
// usage: read_cloud features|matches|tracks

#include <superpoint_ros/features.hpp>

#include <cstdio>
#include <iostream>

#if __has_include(<sensor_msgs/msg/point_cloud2.hpp>)
#include <sensor_msgs/msg/point_cloud2.hpp>
using sensor_msgs::msg::PointCloud2;
using sensor_msgs::msg::PointField;
#else
struct PointField
{
  std::string name;
  uint32_t offset;
  uint8_t datatype;
  uint32_t count;
};

struct PointCloud2
{
  uint32_t height = 0, width = 0;
  std::vector<PointField> fields;
  bool is_bigendian = false;
  uint32_t point_step = 0, row_step = 0;
  std::vector<uint8_t> data;
  bool is_dense = true;
};
#endif

PointCloud2 read()
{
  PointCloud2 cloud;
  int fields, bytes, type, is_bigendian;
  std::cin >> cloud.height >> cloud.width >> is_bigendian >> cloud.point_step >> cloud.row_step >> fields >> bytes;
  cloud.is_bigendian = is_bigendian;
  for (int i = 0; i < fields; ++i) {
    PointField field;
    std::cin >> field.name >> field.offset >> type >> field.count;
    field.datatype = static_cast<uint8_t>(type);
    cloud.fields.push_back(field);
  }
  cloud.data.resize(bytes);
  std::cin.get();
  std::cin.read(reinterpret_cast<char *>(cloud.data.data()), bytes);
  return cloud;
}

void print_features(const PointCloud2 & cloud)
{
  const superpoint_ros::Features features(cloud);
  std::vector<float> descriptor(features.descriptor().count);
  for (size_t i = 0; i < features.size(); ++i) {
    features.unit_descriptor(i, descriptor.data());
    std::printf("%.9g %.9g %.9g", features.x(i), features.y(i), features.score(i));
    for (const float value : descriptor) {
      std::printf(" %.9g", value);
    }
    std::printf("\n");
  }
#if __has_include(<opencv2/core.hpp>)
  const std::vector<cv::KeyPoint> points = keypoints(features);
  const cv::Mat view = descriptors(features), unit = unit_descriptors(features);
  if (view.rows != unit.rows || view.cols != unit.cols || points.size() != features.size()) {
    throw std::logic_error("sizes differ");
  }
  for (int i = 0; i < view.rows; ++i) {
    if (view.cols && view.ptr(i) != cloud.data.data() + i * cloud.point_step + (view.ptr(0) - cloud.data.data())) {
      throw std::logic_error("the matrix is not a view of the message");
    }
    std::printf("cv %.9g %.9g %.9g", points[i].pt.x, points[i].pt.y, points[i].response);
    for (int k = 0; k < unit.cols; ++k) {
      std::printf(" %.9g", unit.at<float>(i, k));
    }
    std::printf("\n");
  }
#endif
}

int main(int, char ** argv)
{
  const std::string kind = argv[1];
  const PointCloud2 cloud = read();
  try {
    if (kind == "features") {
      print_features(cloud);
    } else if (kind == "matches") {
      for (const auto & m : superpoint_ros::matches(cloud)) {
        std::printf("%.9g %.9g %.9g %.9g %.9g %u %u\n", m.x0, m.y0, m.x1, m.y1, m.similarity, m.index0, m.index1);
      }
    } else {
      for (const auto & t : superpoint_ros::tracks(cloud)) {
        std::printf("%u %u %.9g %.9g %.9g\n", t.id, t.age, t.x, t.y, t.score);
      }
    }
  } catch (const std::invalid_argument & error) {
    std::printf("error: %s\n", error.what());
  }
}
