# find_package(superpoint_ros REQUIRED)
# target_link_libraries(my_node superpoint_ros::superpoint_ros)
if(NOT TARGET superpoint_ros::superpoint_ros)
  add_library(superpoint_ros::superpoint_ros INTERFACE IMPORTED)
  set_target_properties(superpoint_ros::superpoint_ros PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}/../include")
endif()
