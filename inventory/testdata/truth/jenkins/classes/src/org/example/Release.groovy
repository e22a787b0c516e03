package org.example

class Release implements Serializable {
  def steps

  Release(steps) { this.steps = steps }

  def push(Map config) {
    steps.withCredentials([steps.usernamePassword(credentialsId: 'quay-ci', usernameVariable: 'U', passwordVariable: 'P')]) {
      steps.sh "docker login -u ${quote(U)} -p ${quote(P)} quay.io"
    }
    def scm = script.checkout([$class: 'GitSCM', userRemoteConfigs: [[credentialsId: "${config.id}", url: "https://git.example.com/a.git"]]])
    return scm
  }

  def keys(step) {
    def all = []
    for (s in step.secrets) {
      all << [$class: 'StringBinding', 'credentialsId': s.source, 'variable': s.target]
    }
    all
  }
}
