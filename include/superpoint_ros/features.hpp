// Reads the point clouds of superpoint_ros: features, matches and tracks, by the names of their fields.
//
// Cloud is sensor_msgs::msg::PointCloud2, or anything with its members. Pixels are (x, y) with centers at integers.
// Every function throws std::invalid_argument with one sentence if the cloud is not what it should be.
//
//   const superpoint_ros::Features features(message);                 // a view: keep the message
//   use(keypoints(features), unit_descriptors(features));             // with OpenCV

#ifndef SUPERPOINT_ROS__FEATURES_HPP_
#define SUPERPOINT_ROS__FEATURES_HPP_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#if __has_include(<opencv2/core.hpp>)
#include <opencv2/core.hpp>
#endif

namespace superpoint_ros
{

/// Types of sensor_msgs/PointField.
enum DataType : uint8_t { kInt8 = 1, kUint32 = 6, kFloat32 = 7 };

/// A field of all points of a cloud: a view of its memory.
struct Field
{
  const uint8_t * data = nullptr;  ///< of the first point
  size_t step = 0;  ///< bytes from point to point
  uint8_t type = 0;  ///< a DataType
  size_t count = 0;  ///< elements for each point

  /// An element of a point; the memory need not be aligned.
  template<typename T>
  T at(size_t point, size_t element = 0) const
  {
    T value;
    std::memcpy(&value, data + point * step + element * sizeof(T), sizeof(T));
    return value;
  }
};

/// The number of points of a cloud.
template<typename Cloud>
size_t size(const Cloud & cloud)
{
  const uint64_t count = uint64_t{cloud.width} * cloud.height;
  if (cloud.is_bigendian) {
    throw std::invalid_argument("point cloud: expected little-endian data");
  }
  if (cloud.point_step == 0 ? count > 0 : count > cloud.data.size() / cloud.point_step) {
    throw std::invalid_argument(
            "point cloud: " + std::to_string(count) + " points of " + std::to_string(cloud.point_step) +
            " bytes, but only " + std::to_string(cloud.data.size()) + " bytes");
  }
  if (cloud.height > 1 && cloud.row_step > uint64_t{cloud.width} * cloud.point_step) {
    throw std::invalid_argument("point cloud: expected one row, or rows without padding");
  }
  return static_cast<size_t>(count);
}

/// A field of one of two types.
template<typename Cloud>
Field field(const Cloud & cloud, const std::string & name, DataType type, DataType other)
{
  size(cloud);
  for (const auto & found : cloud.fields) {
    if (found.name != name) {
      continue;
    }
    const uint64_t bytes = uint64_t{found.count} * (found.datatype == kInt8 ? 1 : 4);
    if ((found.datatype != type && found.datatype != other) || found.offset + bytes > cloud.point_step) {
      throw std::invalid_argument(
              "point cloud: field " + name + " has type " + std::to_string(found.datatype) + " or does not fit");
    }
    const uint8_t * data = cloud.data.empty() ? nullptr : cloud.data.data() + found.offset;
    return {data, cloud.point_step, static_cast<uint8_t>(found.datatype), found.count};
  }
  throw std::invalid_argument("point cloud: no field " + name);
}

/// A field with one element of one type.
template<typename Cloud>
Field field(const Cloud & cloud, const std::string & name, DataType type)
{
  const Field found = field(cloud, name, type, type);
  if (found.count != 1) {
    throw std::invalid_argument("point cloud: expected one element in field " + name);
  }
  return found;
}

/// Keypoints, best first, and their descriptors: a view of a message, valid as long as it.
class Features
{
public:
  template<typename Cloud>
  explicit Features(const Cloud & cloud)
  : size_(superpoint_ros::size(cloud)), x_(field(cloud, "x", kFloat32)), y_(field(cloud, "y", kFloat32)),
    score_(field(cloud, "score", kFloat32))
  {
    for (const auto & found : cloud.fields) {
      if (found.name == "descriptor") {
        descriptor_ = field(cloud, "descriptor", kInt8, kFloat32);
      }
    }
  }

  size_t size() const {return size_;}
  float x(size_t i) const {return x_.at<float>(i);}
  float y(size_t i) const {return y_.at<float>(i);}
  float score(size_t i) const {return score_.at<float>(i);}

  /// The descriptors as they are: INT8, round(127 d), or FLOAT32; a model without descriptors has a count of 0.
  const Field & descriptor() const {return descriptor_;}

  /// Write the descriptor of a point as descriptor().count floats of unit length.
  void unit_descriptor(size_t i, float * output) const
  {
    float square = 0;
    for (size_t k = 0; k < descriptor_.count; ++k) {
      output[k] = descriptor_.type == kInt8 ? descriptor_.at<int8_t>(i, k) : descriptor_.at<float>(i, k);
      square += output[k] * output[k];
    }
    const float scale = square > 0 ? 1 / std::sqrt(square) : 0;
    for (size_t k = 0; k < descriptor_.count; ++k) {
      output[k] *= scale;
    }
  }

private:
  size_t size_;
  Field x_, y_, score_, descriptor_;
};

/// Two keypoints that show the same point.
struct Match
{
  float x0, y0, x1, y1;
  float similarity;  ///< cosine, or probability of a learned matcher
  uint32_t index0, index1;  ///< rows in the two clouds of features
};

/// A keypoint with an identity.
struct Track
{
  uint32_t id;
  uint32_t age;  ///< number of frames in which it was found
  float x, y, score;
};

/// The matches in a message on `matches`.
template<typename Cloud>
std::vector<Match> matches(const Cloud & cloud)
{
  std::vector<Match> found(size(cloud));
  const Field x0 = field(cloud, "x0", kFloat32), y0 = field(cloud, "y0", kFloat32);
  const Field x1 = field(cloud, "x1", kFloat32), y1 = field(cloud, "y1", kFloat32);
  const Field similarity = field(cloud, "similarity", kFloat32);
  const Field index0 = field(cloud, "index0", kUint32), index1 = field(cloud, "index1", kUint32);
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] = {
      x0.at<float>(i), y0.at<float>(i), x1.at<float>(i), y1.at<float>(i), similarity.at<float>(i),
      index0.at<uint32_t>(i), index1.at<uint32_t>(i)};
  }
  return found;
}

/// The tracks in a message on `tracks`.
template<typename Cloud>
std::vector<Track> tracks(const Cloud & cloud)
{
  std::vector<Track> found(size(cloud));
  const Field id = field(cloud, "id", kUint32), age = field(cloud, "age", kUint32);
  const Field x = field(cloud, "x", kFloat32), y = field(cloud, "y", kFloat32), score = field(cloud, "score", kFloat32);
  for (size_t i = 0; i < found.size(); ++i) {
    found[i] = {id.at<uint32_t>(i), age.at<uint32_t>(i), x.at<float>(i), y.at<float>(i), score.at<float>(i)};
  }
  return found;
}

#if __has_include(<opencv2/core.hpp>)

/// The keypoints for OpenCV; those of SuperPoint have no angle, and a size of one cell.
inline std::vector<cv::KeyPoint> keypoints(const Features & features)
{
  std::vector<cv::KeyPoint> found;
  found.reserve(features.size());
  for (size_t i = 0; i < features.size(); ++i) {
    found.emplace_back(features.x(i), features.y(i), 8.0f, -1.0f, features.score(i));
  }
  return found;
}

/// The descriptors as a (size, count) matrix of CV_8S or CV_32F in the memory of the message: read it only.
inline cv::Mat descriptors(const Features & features)
{
  const Field & field = features.descriptor();
  return cv::Mat(
    static_cast<int>(features.size()), static_cast<int>(field.count), field.type == kInt8 ? CV_8S : CV_32F,
    const_cast<uint8_t *>(field.data), field.step);
}

/// A copy of the descriptors as a (size, count) matrix of CV_32F with rows of unit length, for cv::NORM_L2.
inline cv::Mat unit_descriptors(const Features & features)
{
  cv::Mat found(static_cast<int>(features.size()), static_cast<int>(features.descriptor().count), CV_32F);
  for (size_t i = 0; i < features.size(); ++i) {
    features.unit_descriptor(i, found.ptr<float>(static_cast<int>(i)));
  }
  return found;
}

#endif

}  // namespace superpoint_ros

#endif  // SUPERPOINT_ROS__FEATURES_HPP_
